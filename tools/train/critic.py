"""A discriminator beside one generator, with its own optimiser."""

from __future__ import annotations

from typing import Any, Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from engines.errors import SettingsError
from tools.train.adversarial import ADAM_BETAS, gan_loss
from tools.train.discriminators import Judgement, MultiScale
from tools.train.recipe import channels_last, set_learning_rate

RATE: Final = 0.2  # of the generator's learning rate


class Critic:
    """Tells true pictures from made ones, as float32 (N, C, S, S)."""

    def __init__(
        self, fabric: Fabric, channels: int, *, width: int, crop_px: int, scales: int = 1
    ) -> None:
        """Make a PatchGAN at ``scales`` sizes for crops of ``crop_px``.

        Raises:
            SettingsError: the crops are too small for it.
        """
        network = MultiScale(channels, scales=scales, width=width)
        if crop_px < network.smallest_px:
            raise SettingsError(
                f"--crop must give the discriminator {network.smallest_px} pixels or more at"
                f" {scales} scales; it would see {crop_px}"
            )
        network = channels_last(network)
        self._fabric = fabric
        self._network: Any
        self._network, self._optimiser = fabric.setup(
            network, torch.optim.Adam(network.parameters(), 1e-4, ADAM_BETAS)
        )

    def learn(self, true: Tensor, made: Tensor, generator_rate: float) -> Tensor:
        """Take one step; return the loss."""
        set_learning_rate(self._optimiser, generator_rate * RATE)
        self._network.requires_grad_(True)
        found = [gan_loss(self._network(true), True), gan_loss(self._network(made.detach()), False)]
        loss = torch.stack(found).mean()
        self._optimiser.zero_grad()
        self._fabric.backward(loss)
        self._optimiser.step()
        return loss.detach()

    def judge(self, made: Tensor) -> Judgement:
        """What the generator is to learn from: only the pictures get a gradient."""
        self._network.requires_grad_(False)
        found: Judgement = self._network(made)
        return found

    def state(self) -> dict[str, Any]:
        return {
            "adversary": self._network.module.state_dict(),
            "adversary_optimiser": self._optimiser.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._network.module.load_state_dict(state["adversary"])
        self._optimiser.load_state_dict(state["adversary_optimiser"])
