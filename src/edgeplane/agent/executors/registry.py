"""The executors by name: a new one is a line here."""

from collections.abc import Callable, Mapping

from edgeplane.agent.executors.base import Executor
from edgeplane.agent.executors.simulated import SimulatedExecutor
from edgeplane.agent.settings import AgentSettings
from edgeplane.environ import SettingError


def _simulated(settings: AgentSettings) -> Executor:
    try:
        return SimulatedExecutor(settings.simulated_dir, owner=settings.state_dir)
    except OSError as error:
        raise SettingError(
            f"EDGEPLANE_SIMULATED_DIR: {settings.simulated_dir} cannot be used: {error.strerror}"
        ) from error


EXECUTORS: Mapping[str, Callable[[AgentSettings], Executor]] = {"simulated": _simulated}


def build(settings: AgentSettings) -> Executor:
    """Make the executor the settings name; raise SettingError for an unknown or unusable one."""
    factory = EXECUTORS.get(settings.executor)
    if factory is None:
        raise SettingError(
            f"EDGEPLANE_AGENT_EXECUTOR: must be one of {', '.join(EXECUTORS)},"
            f" not {settings.executor!r}"
        )
    return factory(settings)
