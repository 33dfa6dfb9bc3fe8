"""The specification as data: schemas, header registry, requirement register, vectors.

Everything is read from the files beside this module when first asked for and kept afterwards, so
importing costs next to nothing. What is returned is shared: treat it as read only.

* ``schema(name)``, ``names()``: the JSON Schema documents below ``schemas/``.
* ``validate(instance, name)``: the reference validator, raises ``Invalid`` with every ``Fault``.
* ``checker(name)``: the compiled validator for the request path.
* ``HEADERS``: the 25 X-AI header fields, by name in any letter case.
* ``read_field(name, raw)``: the reference reading of one field value.
* ``requirement(id)``, ``requirements()``, ``resolutions()``: the register.
* ``freeze()``, ``levels()``, ``profiles()``: what a release of the suite grades.
* ``vector(name)``, ``vectors()``: the draft's figures and the golden exchanges.
"""

from aiproxy.spec.faults import Fault, Invalid
from aiproxy.spec.freezing import Freeze, Profile, freeze, levels, profiles
from aiproxy.spec.headers import HEADERS, HeaderField
from aiproxy.spec.loading import names, schema
from aiproxy.spec.register import Requirement, requirement, requirements, resolutions
from aiproxy.spec.validation import Checker, checker, validate
from aiproxy.spec.vectors import vector, vectors
from aiproxy.spec.wire import read_field

__all__ = [
    "HEADERS",
    "Checker",
    "Fault",
    "Freeze",
    "HeaderField",
    "Invalid",
    "Profile",
    "Requirement",
    "checker",
    "freeze",
    "levels",
    "names",
    "profiles",
    "read_field",
    "requirement",
    "requirements",
    "resolutions",
    "schema",
    "validate",
    "vector",
    "vectors",
]
