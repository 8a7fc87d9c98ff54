"""What clients have the daemon keep, in one database: SQLite, or PostgreSQL by its URL.

Nothing of SQLAlchemy is imported before something is kept or asked for. What is kept is whose it is: nobody finds what is another's.
"""
