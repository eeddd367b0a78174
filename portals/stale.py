"""Notices that a row was changed after a page about it was opened.

A page keeps the values that it showed, as JSON in a hidden field (`as_opened`). When it is sent,
they are compared with the row's present ones, so that an old page undoes no later change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.db.models import ForeignKey, Model
from django.utils.translation import gettext as _

#: The longest value in a sentence, in characters.
_MOST_SHOWN = 100


class OpenedField(forms.CharField):
    """The values that a page showed; no change of a row by itself."""

    widget = forms.HiddenInput

    def __init__(self) -> None:
        super().__init__(required=False, strip=False, label="")

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Never."""
        return False


def as_opened(row: Model, names: Iterable[str]) -> str:
    """Return the present values of some fields of a row, for the hidden field of a page."""
    return json.dumps(_values(row, names))


#: The most characters of a page's values: a row's fields are shorter.
_MOST = 1 << 20


class Meanwhile:
    """What was changed since a page was opened: by others in the row, by the person in the form.

    Nothing is known if the page has no such values (`opened` is empty): it is no page of this
    version. `damaged` is a sentence if they cannot be read.
    """

    def __init__(self, opened: str, row: Model, names: Iterable[str]) -> None:
        self._row, self._now = row, _values(row, names) if opened else {}
        self.damaged = ""
        try:
            self._then: dict[str, Any] = json.loads(opened[:_MOST] or "{}")
        except (ValueError, RecursionError):
            self._then = {"": ""}
        if not isinstance(self._then, dict) or self._then.keys() != self._now.keys():
            self.damaged = _(
                "What this page showed when it was opened cannot be read: open it again."
            )
            self._then = self._now

    @property
    def theirs(self) -> list[str]:
        """The fields that have another value than the page showed."""
        return [name for name, now in self._now.items() if self._then[name] != now]

    def mine(self, given: Mapping[str, Any]) -> list[str]:
        """The fields to which the form gives another value than the page showed, or a wrong one."""
        missing = object()
        asked = ((name, given.get(name, missing)) for name in self._now)
        return [name for name, value in asked if _plain(value) != self._then[name]]

    def same(self, name: str, given: Mapping[str, Any]) -> bool:
        """Whether the form gives a field its present value: two people made the same change."""
        return name in given and _plain(given[name]) == self._now[name]

    def sentences(self, names: Iterable[str]) -> list[str]:
        """Say of these fields what they were and what they are; or that the values are damaged."""
        if self.damaged:
            return [self.damaged]
        return [_sentence(self._row, name, self._then[name], self._now[name]) for name in names]


def _values(row: Model, names: Iterable[str]) -> dict[str, str]:
    return {name: _plain(getattr(row, name)) for name in names}


def _plain(value: Any) -> str:
    if isinstance(value, Model):
        value = value.pk
    return "" if value is None else str(value)


def _sentence(row: Model, name: str, then: Any, now: str) -> str:
    field: Any = row._meta.get_field(name)
    words = {"field": field.verbose_name, "then": _shown(field, then), "now": _shown(field, now)}
    return (
        _(
            "Nothing is saved: when this page was opened, “%(field)s” was %(then)s; it is %(now)s "
            "now. Open the page again, and make your change there."
        )
        % words
    )


def _shown(field: Any, value: Any) -> str:
    """Return a value as a person reads it."""
    if isinstance(field, ForeignKey) and str(value).isdigit():
        value = field.related_model._default_manager.filter(pk=value).first() or value
    value = str(dict(field.flatchoices).get(value, value))
    if len(value) > _MOST_SHOWN:
        value = f"{value[:_MOST_SHOWN]}…"
    return f"“{value}”" if value else _("empty")
