"""The command `shoal`.

Every command imports what it needs in its body: asking for help costs the import of typer and no more.
"""

import typer

from shoal.cli.agent import agent
from shoal.cli.demo import demo
from shoal.cli.devices import devices
from shoal.cli.doctor import doctor
from shoal.cli.ending import leave
from shoal.cli.measure import evaluate, statistics
from shoal.cli.models import models
from shoal.cli.options import CONNECT, example
from shoal.cli.pins import pin, unpin
from shoal.cli.publish import publish
from shoal.cli.requests import audit, requests
from shoal.cli.rounds import extend, pause, resume, rounds
from shoal.cli.server import server
from shoal.cli.simulate import simulate
from shoal.cli.strategies import strategies
from shoal.cli.tasks import tasks
from shoal.cli.tokens import tokens
from shoal.cli.top import top
from shoal.cli.versions import heads, note, promote, rewind, rollback
from shoal.cli.watch import watch
from shoal.cli.worker import worker

app = typer.Typer(
    name="shoal",
    help="Train one PyTorch model on data that never leaves the devices that made it.",
    epilog=example("shoal demo"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=example("shoal demo", "shoal demo --owners 5 --rounds 20 --no-shuffle"))(demo)
app.add_typer(agent, name="agent")
app.command(epilog=example(CONNECT, "shoal publish task.py:task --rounds 20 --owners 2"))(publish)
app.command(epilog=example(CONNECT, "shoal watch", "shoal watch regression-1"))(watch)
app.command(epilog=example(CONNECT, "shoal top"))(top)
app.command(epilog=example("shoal doctor", "shoal doctor --url http://127.0.0.1:8080"))(doctor)
app.add_typer(devices, name="devices")
app.add_typer(tokens, name="tokens")
app.command(epilog=example(CONNECT, "shoal statistics age height --owners 2 --bins 10 --quantile 0.5"))(statistics)
app.command(epilog=example(CONNECT, "shoal evaluate boston-1@12 --owners 2"))(evaluate)
app.command(epilog=example("shoal simulate task.py:task --clients clients --rounds 20 --cohort 10"))(simulate)
app.command(epilog=example("shoal strategies", "shoal strategies scaffold"))(strategies)
app.add_typer(requests, name="requests")
app.add_typer(audit, name="audit")
app.add_typer(server, name="server")
app.command(epilog=example("shoal worker --name bob --data boston.csv --port 8777"))(worker)
models.command(epilog=example(CONNECT, "shoal models pin boston-1@12"))(pin)
models.command(epilog=example(CONNECT, "shoal models unpin boston-1@12"))(unpin)
models.command(epilog=example(CONNECT, "shoal models heads boston-1"))(heads)
models.command(
    epilog=example(
        CONNECT, "shoal models promote boston-1@12", "shoal models promote boston-1 --canary 0.1 --tolerance 0.02"
    )
)(promote)
models.command(epilog=example(CONNECT, "shoal models rollback boston-1 --reason 'worse at night'"))(rollback)
models.command(epilog=example(CONNECT, "shoal models rewind boston-1@9 --reason 'the loss went up'"))(rewind)
models.command(epilog=example(CONNECT, "shoal models note boston-1@12 'before the new sensors'"))(note)
tasks.command(epilog=example(CONNECT, "shoal tasks rounds boston-1"))(rounds)
tasks.command(epilog=example(CONNECT, "shoal tasks pause boston-1"))(pause)
tasks.command(epilog=example(CONNECT, "shoal tasks resume boston-1"))(resume)
tasks.command(epilog=example(CONNECT, "shoal tasks extend boston-1 --to 50"))(extend)
app.add_typer(tasks, name="tasks")
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SystemExit as ending:
        leave(ending)
