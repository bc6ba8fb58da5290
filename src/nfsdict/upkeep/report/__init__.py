"""The report: one page about a store, for people. ``facts`` gathers what it tells, ``plots`` draws,
``page`` writes it."""
