"""Fakes and drivers that tests use. They are part of the product: whoever extends Lambent tests with them too."""
