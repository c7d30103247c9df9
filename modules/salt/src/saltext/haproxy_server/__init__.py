"""
Salt extension that takes HAProxy backend servers out of service and puts them
back. The files of the loaders lie in ``_modules`` and so on at the top, where
``file_roots`` needs them; those here are links to them.
"""
