"""Stages: the unit of work behind every published number. The engine, then one file per kind.

``base`` defines a stage, ``store`` finds records and tells whether they are current, ``make`` makes missing ones.
Kinds: ``train`` (an adapter), ``score`` (a model's scores), ``frontier`` (likelihoods at several sizes of an update),
``probe``, ``drift``, ``edit`` and ``efficiency``. ``sources`` and ``folders`` put weights on the backbone to be scored;
``energy`` measures the size of an update and its share in the leading singular subspaces.
"""
