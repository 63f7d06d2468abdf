"""What `celery -A` of the measured worker imports."""

from bench.peers.celery_redis import make_app

app = make_app()
