"""A small Django project, as a team may have it; tests/test_django.py starts its servers."""
