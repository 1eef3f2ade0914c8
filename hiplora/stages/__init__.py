"""Stages: the unit of work behind every published number. The engine, then one file per kind.

``base`` says what a stage is, ``store`` where records lie and what they are worth, ``make`` makes what is missing.
Kinds: ``train`` (an adapter), ``score`` (a model's scores) and ``frontier`` (an adapter's cheap scores by its size).
``sources`` puts weights on the backbone to be scored, ``energy`` says where an update lies.
"""
