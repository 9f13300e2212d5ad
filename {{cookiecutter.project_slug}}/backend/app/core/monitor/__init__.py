"""Extensions of Flower: a dashboard with charts, queue metrics, and stricter authentication.

`flowerconfig.py` replaces Flower's application with `application.Application`.
"""
