"""`python -m migrations`: bring the database of MHPO_DATABASE_URL to the newest schema."""

from migrations.schema import upgrade

upgrade()
