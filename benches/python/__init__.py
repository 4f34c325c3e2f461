"""What single operations of the layer cost: ``python -m pytest -c benches/python/pytest.ini benches/python``."""
