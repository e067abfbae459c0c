"""The exit statuses of the command line."""

from sparsedial.errors import BAD_INPUT as BAD_INPUT
from sparsedial.errors import DONE as DONE
from sparsedial.errors import FAILED as FAILED
from sparsedial.errors import INTERRUPTED as INTERRUPTED
