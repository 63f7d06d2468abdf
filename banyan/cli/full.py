"""All commands as one application of Typer, for what reads Typer's applications, such as its documentation tool."""

from banyan.cli.commands import declared
from banyan.cli.with_typer import application

app = application(declared())
