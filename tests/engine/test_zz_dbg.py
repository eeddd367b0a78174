from tests.engine.test_crashes import *
@pytest.mark.parametrize("step", range(1, 100))
def test_one(tmp_path, run, plant, step, monkeypatch):
    from engine.phases import Transfer
    monkeypatch.setattr(Transfer, "_abandon", lambda *_: None)
    after = step % 4 in (1,2)
    place = tmp_path / str(step)
    build(place)
    before = without_folder_times(place / "a")
    text = DYING.replace("LOG", repr(str(place / "log"))).replace("AFTER", str(after))
    plant(text.replace("DEADLY", str(step)))
    options = {"source": engine.Endpoint(str(place), "a"), "target": engine.Endpoint(str(place), "b"), "mode": Mode.MOVE, "on_conflict": OnConflict.OVERWRITE}
    try:
        run(**options)
    except engine.AgentLost:
        pass
    else:
        return
    print(sorted(p.relative_to(place).as_posix() for p in place.rglob("*")))
    att = 1 + step % 3 // 2
    print("attempt", att)
    report = run(attempt=att, resume=True, **options)
    print(report)
    assert_equal_trees(before, without_folder_times(place / "b"))
    assert os.listdir(place / "a") == []
