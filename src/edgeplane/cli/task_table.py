"""A page of tasks, as every list of them prints it."""

from edgeplane.cli import output
from edgeplane.client.records import Page, Task


def show(page: Page[Task]) -> None:
    """Print the tasks of a page, a line each, and say how the list goes on."""
    output.print_table(
        ("ID", "NODE", "TYPE", "STATUS", "ATTEMPTS", "NEXT TRY", "CREATED", "LAST ERROR"),
        [
            (
                *(row.id, row.node_id, row.type, row.status, row.attempts),
                *(row.next_retry_at, row.created_at, row.last_error),
            )
            for row in page.list
        ],
    )
    output.tell_of_more(page.next_cursor)
