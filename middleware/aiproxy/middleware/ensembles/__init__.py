"""Several models that answer one request together (UNI-ENS-001 to 012).

An ensemble is configured under ``routing.ensembles`` and asked for by its name alone, as ``model:
ensemble/NAME``. Its members are requests of their own inside one exchange: same constraints, same
records, same money, side by side. The roles are modules: ``planning`` (who takes part, within the
limits of the sum), ``running`` (executes and aggregates), ``answers`` (validates), ``likeness`` and
``voting`` (compare and choose), ``judging`` (a model that judges), ``joint`` (tells the client).
"""
