"""A served teacher that died: it is named within seconds, and asking ends where none will come."""

from __future__ import annotations

import asyncio
import pickle
import time

import pytest
from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview

from qcrd_ray.recipe import SamplingRecipe, ServeTeacher
from qcrd_ray.teacher import Stopped, TeacherRequest
from qcrd_ray.teacher import serve as served
from qcrd_ray.teacher.health import LOOK_EVERY_S, Health

READY_S = 60.0


def application(states, *, status="UNHEALTHY", trigger="HEALTH_CHECK_FAILED", message=""):
    deployment = DeploymentStatusOverview(
        status=status, status_trigger=trigger, replica_states=states, message=message
    )
    return ApplicationStatusOverview(
        status=status, message="", last_deployed_time_s=0.0, deployments={"teacher": deployment}
    )


class Watched:
    """A health with a clock of the test's, and what Serve says next."""

    def __init__(self, says):
        self.now, self.says, self.looks = 0.0, says, 0
        self.health = Health(self._look, ready_timeout_s=READY_S, clock=lambda: self.now)

    def _look(self):
        self.looks += 1
        return self.says

    def after(self, seconds, says=...):
        self.now += seconds
        self.says = self.says if says is ... else says
        return self.health.trouble()


def test_a_teacher_with_a_replica_is_well_whatever_else_serve_says():
    """One of two replicas has died, and the other answers."""
    watched = Watched(application({"RUNNING": 1, "STARTING": 1}, message="a replica died"))
    assert watched.after(0) == "" == watched.after(10 * READY_S)


def test_a_lost_replica_is_named_at_the_next_look_and_forgotten_when_it_is_back():
    """Bug guarded: the status was read at the start alone, so a dead teacher looked like a slow
    one.
    """
    watched = Watched(application({"RUNNING": 1}, status="RUNNING"))
    assert watched.after(0) == ""
    starting = application({"STARTING": 1, "RUNNING": 0}, message="its health check failed")
    assert "no replica, for 0 s:\n  its health check failed" in watched.after(
        LOOK_EVERY_S, starting
    )
    assert "for 55 s" in watched.after(55)
    assert watched.after(LOOK_EVERY_S, application({"RUNNING": 1}, status="RUNNING")) == ""
    assert "for 0 s" in watched.after(LOOK_EVERY_S, starting), "counted anew"


def test_a_replacement_that_does_not_come_is_waited_for_as_long_as_a_start_may_take():
    watched = Watched(application({"STARTING": 1}, message="waiting for the cluster to auto-scale"))
    for _ in range(6):
        assert "no replica" in watched.after(READY_S / 6 if watched.looks else 0)
    with pytest.raises(Stopped, match=r"for 70 s \(teacher\.ready_timeout_s\):\n.*auto-scale"):
        watched.after(20)


def test_an_engine_that_does_not_start_again_ends_the_asking_with_vllms_error():
    """Serve itself tries for ever once a replica has run."""
    failing = application(
        {"STARTING": 1}, trigger="REPLICA_STARTUP_FAILED", message="Traceback\nCUDA out of memory"
    )
    watched = Watched(application({"RUNNING": 1}, status="RUNNING"))
    watched.after(0)
    with pytest.raises(Stopped, match=r"does not start again:\n  Traceback\n  CUDA out of memory"):
        watched.after(LOOK_EVERY_S, failing)
    with pytest.raises(Stopped, match="does not start again"):
        Watched(application({}, status="DEPLOY_FAILED")).after(0)


def test_an_application_that_is_gone_ends_it_too():
    with pytest.raises(Stopped, match="the teacher is gone"):
        Watched(None).after(0)


def test_serve_is_not_asked_by_every_waiting_request():
    watched = Watched(application({"RUNNING": 1}))
    for _ in range(100):
        watched.after(LOOK_EVERY_S / 50)
    assert watched.looks == 2


def test_a_pause_without_questions_is_no_death():
    """Scaled to zero between two splits, nobody waited for a replica."""
    watched = Watched(application({}, status="RUNNING", trigger="AUTOSCALING"))
    watched.after(0)
    assert "for 0 s" in watched.after(10 * READY_S)


def teacher():
    return served.ServedTeacher(
        ServeTeacher(source="serve", model="m"),
        SamplingRecipe(),
        seed=0,
        application="a",
        requests_in_flight=1,
        schedule_timeout_s=1.0,
    )


class Silent:
    """A handle whose requests wait in a queue for ever, as without a replica."""

    def __init__(self):
        self.ask = self

    def remote(self, *arguments):
        return asyncio.sleep(3600)


def test_a_request_that_waits_learns_that_the_teacher_is_dead(monkeypatch):
    """Bug guarded: each wave of requests cost attempts x request_timeout_s, 40 minutes by
    default.
    """
    assert served.WATCH_S + LOOK_EVERY_S <= 30
    monkeypatch.setattr(served, "WATCH_S", 0.05)
    asked = teacher()
    asked.__dict__ |= {
        "_handle": Silent(),
        "_health": Health(lambda: None, ready_timeout_s=READY_S),
    }
    begin = time.monotonic()
    with pytest.raises(Stopped, match="the teacher is gone"):
        asyncio.run(asked.complete([TeacherRequest(None, "Q: 1?", samples=5)]))
    assert time.monotonic() - begin < 10


def test_a_copy_for_another_process_looks_for_itself():
    asked = teacher()
    asked.__dict__ |= {"_handle": Silent(), "_health": Health(lambda: None, ready_timeout_s=1.0)}
    assert not {"_handle", "_health"} & pickle.loads(pickle.dumps(asked)).__dict__.keys()
