import doctest
import importlib
import pkgutil

import pytest

import dualrs.certificates

MODULES = [module.name for module in pkgutil.iter_modules(dualrs.certificates.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_the_documentation(name):
    outcome = doctest.testmod(importlib.import_module(f"dualrs.certificates.{name}"))
    assert outcome.failed == 0


@pytest.mark.parametrize("name", ["binomial", "gaussian", "budget", "certificate", "procedures"])
def test_every_room_with_a_formula_has_examples(name):
    assert doctest.testmod(importlib.import_module(f"dualrs.certificates.{name}")).attempted > 0


def test_all_public_names_exist():
    assert all(hasattr(dualrs.certificates, name) for name in dualrs.certificates.__all__)
