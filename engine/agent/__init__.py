"""The agent: the program at each end of a transfer.

Python >= 3.8, standard library only. The worker sends it to a host as source (see
`engine.connect.bundle`); it runs there from memory and leaves nothing behind. It speaks frames
(`wire`): commands and payload on stdin, payload on stdout, replies on stderr.
"""
