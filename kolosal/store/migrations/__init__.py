"""Alembic's folder of migrations. They are run by `kolosal.store.migrate` alone."""
