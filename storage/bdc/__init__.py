"""BDC, the configuration database: models, migrations and repositories on SQLAlchemy."""
