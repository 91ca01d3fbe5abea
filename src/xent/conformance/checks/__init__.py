"""The checks, a file for each family; `CHECKS` has them by name, in the order they are run in."""

from xent.conformance.checks import (  # noqa: I001  the order is that of the report
    value as value,
    gradient as gradient,
    shape as shape,
    dtype as dtype,
    stable as stable,
    accuracy as accuracy,
    bad_input as bad_input,
    options as options,
    calls as calls,
    compose as compose,
    memory as memory,
    linear as linear,
    linear_compose as linear_compose,
)
from xent.conformance.checks.record import AGREES as AGREES
from xent.conformance.checks.record import BETTER as BETTER
from xent.conformance.checks.record import CHECKS as CHECKS
from xent.conformance.checks.record import SEVERITIES as SEVERITIES
from xent.conformance.checks.record import Check as Check
