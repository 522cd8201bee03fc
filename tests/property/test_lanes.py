"""The order of work at a node: what holds for every queue."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgeplane.model import lanes
from edgeplane.model.lanes import Conditions
from edgeplane.model.tasks import Lane, Task, TaskKind, TaskStatus, lane_of
from kit.factories import NOW, a_task, after

_seconds = st.integers(-5, 5)


@st.composite
def _queues(draw):
    """Draw a node's open tasks, oldest first: at most one config task runs, as at any node."""
    queue: list[Task] = []
    for number in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(TaskKind))
        config_runs = any(
            task.status is TaskStatus.RUNNING and lane_of(task.kind) is Lane.CONFIG
            for task in queue
        )
        status = draw(st.sampled_from([TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.FAILED]))
        if status is TaskStatus.RUNNING and config_runs and lane_of(kind) is Lane.CONFIG:
            status = TaskStatus.PENDING
        due = after(draw(_seconds)) if status is TaskStatus.FAILED else None
        queue.append(
            a_task(
                id=number + 1,
                kind=kind,
                priority=draw(st.integers(0, 9)),
                operation_id=draw(st.sampled_from([None, 1, 2])),
                generation=number + 1 if kind is TaskKind.APPLY_CONFIG else None,
                status=status,
                next_retry_at=due,
                created_at=after(-9),
                deadline_at=after(draw(_seconds)),
            )
        )
    return queue


def _all_due(drawn):
    return [
        a_task(
            id=number,
            kind=kind,
            operation_id=operation_id,
            generation=number if kind is TaskKind.APPLY_CONFIG else None,
        )
        for number, (kind, operation_id) in enumerate(drawn, 1)
    ]


#: Of these, only who holds up whom decides.
_due_queues = st.lists(
    st.tuples(st.sampled_from(TaskKind), st.sampled_from([None, 1])), max_size=6
).map(_all_due)
_conditions = st.builds(
    Conditions,
    now=st.just(NOW),
    limit=st.integers(1, 4),
    paused=st.booleans(),
    probing=st.booleans(),
)
_open_for_work = st.builds(
    Conditions,
    now=st.just(NOW),
    limit=st.integers(1, 4),
    paused=st.just(value=False),
    probing=st.just(value=False),
)


_some_held = st.builds(
    Conditions,
    now=st.just(NOW),
    limit=st.integers(1, 4),
    paused=st.booleans(),
    probing=st.booleans(),
    held=st.frozensets(st.sampled_from([1, 2]), min_size=1),
)
_held_at_work = st.builds(
    Conditions,
    now=st.just(NOW),
    limit=st.integers(2, 4),
    paused=st.just(value=False),
    probing=st.just(value=False),
    held=st.just(frozenset({1})),
)


def not_over(queue):
    """Return what waits and has not expired."""
    return [
        task for task in queue if task.status is not TaskStatus.RUNNING and task.deadline_at > NOW
    ]


def waiting(queue):
    """Return what waits, and neither has expired nor is an older config than another."""
    newest = [task for task in not_over(queue) if task.kind is TaskKind.APPLY_CONFIG][-1:]
    return [
        task for task in not_over(queue) if task.kind is not TaskKind.APPLY_CONFIG or task in newest
    ]


def running(queue):
    """Return what is out."""
    return [task for task in queue if task.status is TaskStatus.RUNNING]


def configs(tasks):
    """Return those of the config lane."""
    return [task for task in tasks if lane_of(task.kind) is Lane.CONFIG]


def due(task):
    """Whether a task could begin by its own time."""
    return task.next_retry_at is None or task.next_retry_at <= NOW


@given(_queues(), _conditions)
def test_a_plan_begins_only_what_waits(queue, conditions):
    """What runs, has expired or is none of the node's never begins, and nothing begins twice."""
    plan = lanes.plan(queue, conditions)
    ids = [task.id for task in plan.begin]
    assert set(ids) <= {task.id for task in waiting(queue)}
    assert len(ids) == len(set(ids))


@given(_queues(), _conditions)
def test_what_has_expired_is_named_whatever_the_conditions(queue, conditions):
    """A deadline passes on a paused node too, but not for a task that is out."""
    late = [
        task for task in queue if task.status is not TaskStatus.RUNNING and task.deadline_at <= NOW
    ]
    assert list(lanes.plan(queue, conditions).expire) == late


@given(_queues(), _conditions)
def test_one_config_task_at_a_time_and_the_oldest_first(queue, conditions):
    """At most one runs; the one that begins is the oldest that waits."""
    begun = configs(lanes.plan(queue, conditions).begin)
    assert len(begun) + len(configs(running(queue))) <= 1 or not begun
    if begun:
        assert begun == configs(waiting(queue))[:1]


@given(_queues(), _conditions)
def test_a_head_in_back_off_blocks_its_lane(queue, conditions):
    """No younger config task begins before the head is due, unless the head itself is a probe."""
    head = configs(waiting(queue))[:1]
    if head and not due(head[0]) and not conditions.probing:
        assert not configs(lanes.plan(queue, conditions).begin)


@given(_queues(), _conditions)
def test_the_limit_is_kept(queue, conditions):
    """Begun and running together are never more than the limit, unless more ran before."""
    begun = lanes.plan(queue, conditions).begin
    assert not begun or len(begun) + len(running(queue)) <= conditions.limit


@given(_queues(), _open_for_work)
def test_purges_wait_for_nobody(queue, conditions):
    """Every due purge begins while there is room, whatever the config lane does."""
    room = max(0, conditions.limit - len(running(queue)))
    begun = lanes.plan(queue, conditions).begin
    left = [
        task
        for task in waiting(queue)
        if lane_of(task.kind) is Lane.PURGE and due(task) and task not in begun
    ]
    assert not left or len(begun) == room


@given(_queues(), _open_for_work)
def test_no_room_is_left_while_a_head_is_due(queue, conditions):
    """A due head of the config lane begins too, unless older work takes the room."""
    room = max(0, conditions.limit - len(running(queue)))
    begun = lanes.plan(queue, conditions).begin
    head = configs(waiting(queue))[:1]
    if head and due(head[0]) and not configs(running(queue)) and head[0] not in begun:
        assert len(begun) == room
        assert not begun or conditions.limit == 1
        assert all(task.id < head[0].id for task in begun)


@given(_queues(), _conditions)
def test_of_several_configs_that_wait_the_newest_is_left(queue, conditions):
    """Each older one is named with it, whatever the conditions; no other task is."""
    configs_waiting = [task for task in not_over(queue) if task.kind is TaskKind.APPLY_CONFIG]
    found = lanes.plan(queue, conditions).supersede
    assert [old for old, _ in found] == configs_waiting[:-1]
    assert {new.id for _, new in found} <= {task.id for task in configs_waiting[-1:]}


@given(_queues(), _open_for_work)
def test_the_most_urgent_purges_begin_first(queue, conditions):
    """None that is due is left behind for one of a higher rank."""
    begun = [
        task for task in lanes.plan(queue, conditions).begin if lane_of(task.kind) is Lane.PURGE
    ]
    left = [
        task
        for task in waiting(queue)
        if lane_of(task.kind) is Lane.PURGE and due(task) and task not in begun
    ]
    if begun and left and conditions.limit > 1:
        assert max((task.rank, task.id) for task in begun) < min((t.rank, t.id) for t in left)


def test_nothing_waits_for_ever_behind_what_is_more_urgent():
    """A purge at 0 goes before one at 9 that was asked for more than 90 s later."""
    low = a_task(kind=TaskKind.PURGE_CACHE, priority=0, created_at=after(-91))
    high = a_task(kind=TaskKind.PURGE_CACHE, priority=9, created_at=NOW)
    fresh = a_task(kind=TaskKind.PURGE_CACHE, priority=9, created_at=after(-2))
    assert fresh.rank < low.rank < high.rank


@given(_queues(), st.integers(1, 4))
def test_a_paused_node_is_sent_nothing(queue, limit):
    """Whatever waits."""
    conditions = Conditions(now=NOW, limit=limit, paused=True, probing=False)
    assert lanes.plan(queue, conditions).begin == ()


@given(_queues(), st.integers(1, 4))
def test_a_node_out_of_reach_is_sent_one_task_at_most(queue, limit):
    """The oldest, when nothing is out and anything is due."""
    conditions = Conditions(now=NOW, limit=limit, paused=False, probing=True)
    wanted = waiting(queue)[:1] if not running(queue) and any(map(due, waiting(queue))) else []
    assert list(lanes.plan(queue, conditions).begin) == wanted


@given(_queues(), _conditions)
def test_whatever_waits_is_looked_at_again(queue, conditions):
    """While something waits there is a time for the next look: ahead, and not past a deadline."""
    plan = lanes.plan(queue, conditions)
    left = [task for task in waiting(queue) if task not in plan.begin]
    assert (plan.next_due is not None) == bool(left)
    if plan.next_due is not None:
        assert NOW < plan.next_due <= min(task.deadline_at for task in left)


@given(_queues(), _conditions)
def test_the_next_look_is_not_in_vain(queue, conditions):
    """At that time something begins or expires, if nothing is out and nothing else happens."""
    alone = [task for task in queue if task.status is not TaskStatus.RUNNING]
    plan = lanes.plan(alone, conditions)
    if plan.begin or plan.next_due is None:
        return
    later = Conditions(
        now=plan.next_due,
        limit=conditions.limit,
        paused=conditions.paused,
        probing=conditions.probing,
    )
    gone = {*(task.id for task in plan.expire), *(old.id for old, _ in plan.supersede)}
    found = lanes.plan([task for task in alone if task.id not in gone], later)
    assert found.begin or found.expire


@given(_queues(), _open_for_work)
def test_a_purge_that_backs_off_is_looked_at_when_it_is_due(queue, conditions):
    """Also while other tasks are out, as long as the node has room."""
    plan = lanes.plan(queue, conditions)
    if len(plan.begin) + len(running(queue)) >= conditions.limit:
        return
    for task in waiting(queue):
        if lane_of(task.kind) is Lane.PURGE and not due(task):
            assert plan.next_due is not None
            assert plan.next_due <= task.next_retry_at


def test_no_more_purges_are_out_than_an_agent_takes():
    """However many wait and however large a batch may be; what is left waits for results."""
    queue = [
        a_task(
            id=number,
            kind=TaskKind.PURGE_CACHE,
            status=TaskStatus.RUNNING if number < 150 else TaskStatus.PENDING,
        )
        for number in range(1000)
    ]
    conditions = Conditions(now=NOW, limit=8, batch=100, out=2, paused=False, probing=False)
    plan = lanes.plan(queue, conditions)
    assert len(plan.begin) == lanes.MOST_PURGES_OUT - 150
    assert plan.next_due == after(86_400)


def test_the_one_place_goes_to_the_most_urgent_purge():
    """Its age decides between the lanes, its rank among purges."""
    low = a_task(id=1, kind=TaskKind.PURGE_CACHE, priority=0)
    config = a_task(id=2)
    high = a_task(id=3, kind=TaskKind.PURGE_CACHE, priority=9)
    conditions = Conditions(now=NOW, limit=1, paused=False, probing=False)
    assert lanes.plan([low, config, high], conditions).begin == (high,)
    assert lanes.plan([config, high], conditions).begin == (config,)


@given(_queues(), _some_held)
def test_nothing_that_is_held_begins(queue, conditions):
    """Neither in its turn nor as a probe; its deadline passes all the same."""
    plan = lanes.plan(queue, conditions)
    assert not [task for task in plan.begin if task.operation_id in conditions.held]
    assert plan.expire == lanes.plan(queue, replace(conditions, held=frozenset())).expire


@given(_queues() | _due_queues, _held_at_work)
def test_nothing_waits_for_a_held_reload_or_purge(queue, conditions):
    """All else goes on as if they were not there, for as long as they are held."""
    there = [
        task
        for task in queue
        if task.operation_id not in conditions.held
        or task.kind is TaskKind.APPLY_CONFIG
        or task.status is TaskStatus.RUNNING
    ]
    plan, without = lanes.plan(queue, conditions), lanes.plan(there, conditions)
    assert (plan.begin, plan.supersede) == (without.begin, without.supersede)


@given(_queues() | _due_queues, _held_at_work)
def test_the_lane_waits_behind_a_held_config(queue, conditions):
    """What comes before it has its turn; of what is free, the oldest begins."""
    lane = configs(waiting(queue))
    held = [
        task
        for task in lane
        if task.operation_id in conditions.held and task.kind is TaskKind.APPLY_CONFIG
    ]
    free = [
        task
        for task in lane
        if task.operation_id not in conditions.held and (not held or task.id < held[0].id)
    ]
    begun = configs(lanes.plan(queue, conditions).begin)
    assert begun in ([], free[:1])


@given(_queues(), _some_held)
def test_what_was_held_has_its_turn_by_its_age(queue, conditions):
    """Resumed, it goes before what is younger: the plan is that of a queue never held."""
    held = lanes.plan(queue, conditions)
    left = [task for task in queue if task not in held.begin]
    resumed = lanes.plan(left, replace(conditions, held=frozenset()))
    begun = configs(resumed.begin)
    assert begun in ([], configs(waiting(left))[:1])


@given(_queues(), _some_held)
def test_what_is_held_is_looked_at_by_its_deadline(queue, conditions):
    """And never at a time that has come already: a held queue costs nothing."""
    plan = lanes.plan(queue, conditions)
    left = [task for task in waiting(queue) if task not in plan.begin]
    assert (plan.next_due is not None) == bool(left)
    if plan.next_due is not None:
        assert NOW < plan.next_due <= min(task.deadline_at for task in left)
