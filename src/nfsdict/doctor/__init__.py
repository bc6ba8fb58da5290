"""The doctor: tries on a directory what a store needs of its file system, and says what it breaks.

One module a concern: ``mount``, ``semantics``, ``clock``, ``room``, ``speed``, and ``peer`` for two
hosts. Each gives findings (``report``); ``examination`` puts them together.
"""
