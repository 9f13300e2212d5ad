"""What this project adds to Flower: a dashboard with graphs, and a stricter door.

`flowerconfig.py` puts `application.Application` in the place of Flower's own.
"""
