"""What recipes with one generator share: building it, a step of its optimiser, its state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tools.train.critic import Critic
from tools.train.generators import check_crop
from tools.train.recipe import Average, Recipe, Scalars, channels_last
from tools.train.start import begin_with


class OneGenerator(Recipe):
    """A recipe that trains one generator and ships the average of its weights."""

    _critic: Critic | None = None

    def _build(self, smallest_crop_px: int) -> None:
        """Make the generator, before anything that takes long.

        Raises:
            SettingsError: there is no such generator, or it cannot take such crops.
        """
        chosen = self.settings
        torch.manual_seed(chosen.seed)
        network = channels_last(begin_with(chosen.generator, chosen.start))
        check_crop(network, smallest_crop_px)
        self._stride = int(getattr(network, "stride", 1))
        self._average = Average(network).to(self.fabric.device)
        self._network, self._optimiser = self.fabric.setup(
            network, torch.optim.Adam(network.parameters(), chosen.learning_rate)
        )

    def _improve(self, loss: Tensor, losses: Scalars, step: int) -> Scalars:
        """Take one step of the optimiser; return the curves."""
        self._optimiser.zero_grad()
        self.fabric.backward(loss)
        self._optimiser.step()
        self._average.follow(self._network.module, step)
        return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}

    def state(self) -> dict[str, Any]:
        return {
            "network": self._network.module.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            **(self._critic.state() if self._critic else {}),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._network.module.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimiser.load_state_dict(state["optimiser"])
        if self._critic:
            self._critic.load(state)

    def finished(self) -> dict[str, nn.Module]:
        return {self.settings.name: self._average.network.cpu().eval()}
