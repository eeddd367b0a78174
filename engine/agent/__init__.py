"""The agent: the program at each end of a transfer.

Python >= 3.8, standard library only. It is sent to a host as source (see
`engine.bundle`), runs there from memory and leaves nothing behind. It speaks
frames (`wire`): commands and payload on stdin, payload on stdout, answers on
stderr.
"""
