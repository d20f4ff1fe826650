"""What gunicorn loads: `gunicorn -c deploy/gunicorn.conf.py app.wsgi:application`."""

from app.factory import create_app

application = create_app()
