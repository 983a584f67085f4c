"""What the documentation's site needs beyond Sphinx, MyST and the theme: see docs/conf.py."""
