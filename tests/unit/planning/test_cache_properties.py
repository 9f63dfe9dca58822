"""What holds of a ModelCache whatever people do, however downloads end and wherever the operator is cut off."""

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from berth.api.model_cache import ModelCache
from berth.planning.plan import Plan
from support.builders import GIB
from support.cache_simulation import KILLED, LOST, OK, CacheSimulation, Source, jobs_in, option

URIS = ("hf://org/a", "hf://org/b", "hf://org/c")
MODELS = ("m", "n")
LIMIT = 25 * GIB
uris, models = st.sampled_from(URIS), st.sampled_from(MODELS)
ends = st.sampled_from([OK, KILLED, LOST, "ConnectionCut", "!NotFound", "!NoSpace"])


class CacheLife(RuleBasedStateMachine):
    """People, Jobs and the operator take turns in any order."""

    @initialize(
        parallel=st.integers(1, 2),
        limited=st.booleans(),
        eviction=st.sampled_from(["None", "LRU"]),
        sizes=st.tuples(*[st.integers(1, 20)] * 3),
    )
    def begin(self, parallel: int, limited: bool, eviction: str, sizes: tuple[int, ...]) -> None:
        limit = {"limit": str(LIMIT)} if limited else {}
        self.cluster = CacheSimulation(maxParallelDownloads=parallel, eviction=eviction, **limit)
        self.parallel, self.limited = parallel, limited
        self.cluster.sources = {uri: Source(size * GIB) for uri, size in zip(URIS, sizes, strict=True)}

    # ---- people -------------------------------------------------------------------------------------------------

    @rule(name=models, uri=uris, state=st.sampled_from(["Running", "Running", "Stopped"]))
    def a_model_is_applied(self, name: str, uri: str, state: str) -> None:
        self.cluster.add_model(name, uri, state=state)

    @rule(name=models)
    def a_model_is_deleted(self, name: str) -> None:
        if ("Model", name) in self.cluster.objects:
            self.cluster.drop("Model", name)

    @rule(
        declared=st.lists(st.tuples(uris, st.sampled_from(["Present", "Absent"])), max_size=2, unique_by=lambda x: x[0])
    )
    def artifacts_are_declared(self, declared: list[tuple[str, str]]) -> None:
        self.cluster.declare(*({"uri": uri, "state": state} for uri, state in declared))

    # ---- the operator -------------------------------------------------------------------------------------------

    @rule(cut_off_after=st.none() | st.integers(0, 3))
    def the_operator_looks(self, cut_off_after: int | None) -> None:
        plan = self.cluster.plan()
        self.check(plan)
        self.cluster.reconcile(cut_off_after)

    @rule()
    def the_operator_looks_until_it_is_content(self) -> None:
        for _ in range(10):
            before = self.cluster.writes
            self.check(self.cluster.plan())
            self.cluster.reconcile()
            if self.cluster.writes == before:
                return
        raise AssertionError("it writes and writes")

    def check(self, plan: Plan) -> None:
        removed = {job["metadata"]["labels"]["berth.dev/artifact"] for job in jobs_in(plan) if not option(job, "--uri")}
        for entry in (plan.status or self.cluster.status).get("artifacts") or ():
            if entry["name"] in removed:
                assert not entry.get("models"), "what a Model refers to is not removed"
                assert not entry.get("declared"), "what is declared is not removed"
        begun = {option(job, "--uri") for job in jobs_in(plan)} - {""}
        if begun:
            assert len(begun | set(self.cluster.downloads())) <= self.parallel

    # ---- Jobs ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.cluster.jobs())
    @rule(which=st.integers(0, 5), steps=st.integers(1, 3), end=ends)
    def a_job_goes_on(self, which: int, steps: int, end: str) -> None:
        job = self.cluster.jobs()[which % len(self.cluster.jobs())]
        if self.limited and end in (KILLED, LOST):
            end = OK  # what ends without a word may have written more than anybody knows
        if uri := option(job, "--uri"):
            self.cluster.sources[uri].ends[:] = [end]
        for _ in range(steps):
            self.cluster.step(self.cluster.objects["Job", job["metadata"]["name"]])

    @rule(seconds=st.sampled_from([1, 40, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now += timedelta(seconds=seconds)

    # ---- what always holds --------------------------------------------------------------------------------------

    @invariant()
    def the_limit_is_kept(self) -> None:
        if self.limited:
            assert sum(self.cluster.volume.values()) <= LIMIT

    @invariant()
    def the_status_has_the_shape_of_the_api(self) -> None:
        ModelCache.model_validate({"spec": self.cluster.cache["spec"], "status": self.cluster.status})

    def teardown(self) -> None:
        """Once everything goes well, every wanted artifact is there, unless it is said why not."""
        cluster = self.cluster
        for source in cluster.sources.values():
            source.ends.clear()
        cluster.settle()
        wanted = {
            one["spec"]["source"]["uri"]
            for (kind, _), one in cluster.objects.items()
            if kind == "Model" and one["spec"]["state"] == "Running"
        }
        wanted |= {one["uri"] for one in cluster.cache["spec"].get("artifacts") or () if one["state"] == "Present"}
        for uri in wanted:
            refused = cluster.entries[uri].get("reason") in ("LimitExceeded", "WaitingForSpace")
            assert cluster.state(uri) == "Present" or (self.limited and refused), cluster.entries[uri]
        present = {one["name"]: one["bytes"] for one in cluster.entries.values() if one["state"] == "Present"}
        assert present == {name: size for name, size in cluster.volume.items() if name in present}
        assert cluster.jobs() == []


TestCacheLife = CacheLife.TestCase
TestCacheLife.settings = settings(max_examples=40, stateful_step_count=25)
