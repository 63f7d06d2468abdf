"""All commands as one application of Typer, for programs that read such ones, like its documentation tool."""

from banyan.cli.commands import declared
from banyan.cli.with_typer import application

app = application(declared())
