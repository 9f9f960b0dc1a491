"""The section `[storage]`: what a node wants of the hosts of its objects, and what it keeps for others."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from . import fields as f
from .sections import RESERVED, YEAR_S, Section

_WEIGHT_MILLI_MAX = 10**9


class Storage(Section):
    """What is kept here. Paths that are not given lie in node.data_dir."""

    enabled: bool = Field(default=True, description="keep copies of others' objects")
    owner_share_percent: int = Field(
        default=50,
        ge=1,
        le=100,
        description="most of the room for them that one owner's may take, 100 = all of it",
    )
    copies: int = Field(
        default=3, ge=1, le=64, description="hosts that an object of this node's is brought to, if it is not coded"
    )
    coded_from_bytes: int = Field(
        default=10_000_000,
        ge=0,
        le=2**63 - 1,
        description="objects of at least this are not copied but coded, unless their put says otherwise",
    )
    shards_needed: int = Field(default=12, ge=1, le=127, description="shards that give a coded object back")
    shards_total: int = Field(
        default=20,
        ge=2,
        le=128,
        validate_default=True,
        description="shards that it has, more than are needed; a host may hold several",
    )
    padded: bool = Field(
        default=False,
        description="fill objects up, so that hosts know the classes of their sizes alone, unless a put says otherwise",
    )
    placement: f.Placement = Field(
        default="balanced",
        description="among hosts that fail apart: by free space, the nearest, or the fastest",
    )
    required_milli: int = Field(
        default=2000,
        ge=1,
        le=_WEIGHT_MILLI_MAX,
        description="weight of acks that makes it durable, unless it says otherwise, in thousandths",
    )
    repair_after_ms: int = Field(
        default=600_000,
        ge=1_000,
        le=1_000 * YEAR_S,
        description="what a host held that is dead for so long is brought to others, in milliseconds",
    )
    journal_interval_ms: int = Field(
        default=2_000,
        ge=0,
        le=1_000 * YEAR_S,
        description="a core's journal goes to hosts so long after an event at most, to be restored from; 0 = never",
    )
    repair_bytes_per_s: f.OptionalRate = Field(
        default=0, description="most that this node pulls or gives a second to make lost shards anew, 0 = no limit"
    )
    reencrypt_bytes_per_s: f.OptionalRate = Field(
        default=10_000_000,
        description="most that is sealed anew a second when this node's objects are to be, 0 = no limit",
    )
    scrub_bytes_per_s: int = Field(
        default=10_000_000,
        ge=1_000,
        le=2**40,
        description="most that is read a second to find faults in what is kept for others",
    )
    scrub_days: int = Field(
        default=14, ge=1, le=365, description="all of it is read once within so many days, if that rate allows"
    )
    audit_days: int = Field(
        default=30,
        ge=0,
        le=365,
        description="each durable object is audited at its hosts within so many days, 0 = only after repair",
    )
    memory_db: f.FilePath = Field(default=Path("data/memory.db"), description="the node's store")
    chunk_dir: f.FilePath = Field(default=Path("data/chunks"), description="folder of objects, sealed")
    chunk_threshold: int = Field(
        default=1_048_576,
        ge=1,
        le=2**40,
        description="data above this, or above 16384, goes to chunk_dir, in bytes; smaller data stays in the store",
    )
    summary_dir: f.FilePath = Field(
        default=Path("data/summaries"),
        description="taken, since older settings have it: summaries lie in the store, sealed and shredded with their "
        "sessions, and not as files",
        json_schema_extra=RESERVED,
    )
    hosts: f.Urls = Field(
        default=(),
        description="the only hosts for this node's objects, by the URL of what metrics.listen serves there; none: any",
    )
    retention_base_mb: int = Field(
        default=128,
        ge=1,
        le=2**20,
        description="MiB that events, summaries, chunks and indices may take: 40, 25, 25 and 10 % of it",
    )
    retention_token_level: int = Field(default=0, ge=0, le=1_000, description="they may take so many times that more")
    compaction_interval: int = Field(
        default=1800,
        ge=1,
        le=YEAR_S,
        description="seconds of events that one summary of them has, which stays when they go",
    )
    limit_mb: int = Field(default=4096, ge=16, le=2**24, description="largest size of the store's file, in MiB")

    @field_validator("shards_total")
    @classmethod
    def _check_total(cls, total: int, info: ValidationInfo) -> int:
        needed = info.data.get("shards_needed", 0)
        if total <= needed:
            raise f.wrong(f"{total} shards, of which {needed} are needed: more must be made than are needed")
        return total
