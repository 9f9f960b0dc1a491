"""`offgrid-node demo`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True), required=False)
@click.option("--storage", is_flag=True, help="Keep a folder, FILE, while hosts die, instead of doing jobs.")
@click.option("--hosts", type=click.IntRange(4, 20), default=10, show_default=True, help="With --storage: how many.")
@click.option("--keep", is_flag=True, help="Leave the mesh running and print how to talk to it.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where; a temporary folder unless given.")
def demo(file: Path | None, storage: bool, hosts: int, keep: bool, folder: Path | None) -> int:
    """Show everything at work: five nodes, a job on FILE, a host killed in the middle of another job.

    With --storage an owner and ten hosts: a folder put, three of its hosts killed, and the folder got back."""
    from offgrid_node.demo import demonstrate, demonstrate_storage

    if file is not None and file.is_dir() != storage:
        why = "is not a directory, as --storage wants" if storage else "is a directory, which only --storage takes"
        raise click.UsageError(f"{file} {why}")
    if storage:
        return demonstrate_storage(file, hosts, keep=keep, folder=folder)
    return demonstrate(file, keep=keep, folder=folder)
