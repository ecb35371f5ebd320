"""Bindings that cannot be: by the release itself, or by the config of the device, which is no fault of the release."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.agent.loading import Misbound, bindings_complaint, check_bindings, config_complaint
from sync.bindings import Binding
from sync.lookups import Config
from sync.manifest import Variable
from tests.edge.bound import BINDING, Box
from tests.edge.graphs import manifest


def test_a_config_may_be_at_fault_where_the_release_is_not() -> None:
    listens = replace(manifest(1, (Binding("plant/{line}/{entity}", "x"),)), variables=(Variable("line", 7.0),))
    check_bindings(listens)
    assert not bindings_complaint(listens, Config({"line": 8.0}))
    assert "1e+06" in bindings_complaint(listens, Config({"line": 1e6}))
    assert config_complaint(listens, Config({"line": 1e6})) == bindings_complaint(listens, Config({"line": 1e6}))
    ours = replace(listens, bindings=(Binding("plant/{line}/{entity}", "falaj/x"),))
    assert bindings_complaint(ours, Config({"line": 8.0})), "which an older agent took up"
    assert not config_complaint(ours, Config({"line": 8.0})), "that is no config's fault: none would ever do"
    with pytest.raises(Misbound, match="publish it anew"):
        check_bindings(replace(listens, variables=(Variable("line", 1e6),)))


def test_one_that_an_older_agent_took_up_costs_the_others_nothing(tmp_path: Path) -> None:
    box = Box(tmp_path / "buffers.db")
    (why,) = box.bindings.bind(manifest(1, (Binding("wat+ch/{entity}", "x"), BINDING)))
    assert "wat+ch" in why and not box.bindings.bind(manifest(2, (BINDING,))), "people hear of it"
    box.bindings.bind(manifest(1, (Binding("wat+ch/{entity}", "x"), BINDING)))
    assert box.bindings.subscriptions() == (BINDING.topic.replace("{entity}", "+"),)
    box.buffers.close()
