"""A temperature of each voxel, from a small network that looks at the logits and the image."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from monai_calib.metrics.regions import Region, bounding_box
from monai_calib.posthoc.base import Calibrator
from monai_calib.posthoc.stream import LogitCase
from monai_calib.posthoc.temperature import TemperatureSearch, note_search

__all__ = ["LocalTemperature", "LocalTemperatureHead"]

_SPREAD = math.log(8.0)
_MARGIN = 4


class LocalTemperatureHead(nn.Module):
    """Divides logits by ``T(x) = T0 exp(log 8 tanh(f(log p, image)))``, ``f`` three small convolutions.

    So ``T`` lies within a factor of 8 of ``T0`` whatever the input. ``f`` starts at 0: plain temperature scaling.

    Args:
        num_classes: channels of the logits.
        image_channels: channels of the image.
        spatial_dims: 2 or 3.
        width: channels between the convolutions.
    """

    log_temperature: Tensor

    def __init__(self, num_classes: int, image_channels: int, spatial_dims: int, width: int) -> None:
        super().__init__()
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.features = nn.Sequential(
            convolution(num_classes + image_channels, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
            convolution(width, width, 3, padding=1, padding_mode="replicate"),
            nn.ReLU(),
        )
        self.last = convolution(width, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]  # has a bias
        self.register_buffer("log_temperature", torch.zeros(()))
        self.spread = _SPREAD

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """Calibrated logits ``(B, K, *spatial)``."""
        return logits / self.temperature(logits, image)

    def temperature(self, logits: Tensor, image: Tensor) -> Tensor:
        """``T``, ``(B, 1, *spatial)``."""
        # Log-probabilities do not tell a common shift; far down they are all alike.
        seen = torch.cat([torch.log_softmax(logits, 1).clamp(min=-10.0) / 10.0, image.to(logits.dtype)], 1)
        return torch.exp(self.log_temperature + self.spread * torch.tanh(self.last(self.features(seen))))


class LocalTemperature(Calibrator):
    """Local temperature scaling: ``softmax(logits(x) / T(x))`` with ``T`` from logits and image around ``x``.

    In 2D and 3D. The first passes find one temperature; then come ``epochs`` passes of stochastic gradient descent on
    the likelihood, one step a case, on the box around the region; a last pass keeps whichever of the two is better.
    Labels stay as they are.

    Args:
        num_classes, region: see :class:`~monai_calib.posthoc.base.Calibrator`.
        image_channels: channels of the image; those of the first case if not given.
        spatial_dims: 2 or 3; that of the first case if not given.
        width: channels between the convolutions.
        epochs: passes of descent.
        learning_rate: of Adam, falling to 0 along a cosine.
        seed: of the weights at the start.

    Source: Ding et al., ICCV 2021; https://arxiv.org/abs/2008.05105

    Example:
        >>> scaling = LocalTemperature(2, image_channels=1, spatial_dims=2)
        >>> scaling.apply(torch.ones(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)).mean().item()  # T = 1 before the fit
        1.0
    """

    method = "local_temperature"
    keeps_argmax = True
    looks_around = True

    def __init__(
        self,
        num_classes: int,
        region: str | Region | None = None,
        image_channels: int | None = None,
        spatial_dims: int | None = None,
        width: int = 8,
        epochs: int = 8,
        learning_rate: float = 1e-2,
        seed: int = 0,
    ) -> None:
        if width < 1 or epochs < 1 or not learning_rate > 0:
            raise ValueError(
                f"expected positive width, epochs and learning_rate, got {width}, {epochs}, {learning_rate}"
            )
        self.image_channels, self.spatial_dims = image_channels, spatial_dims
        self.width, self.epochs, self.learning_rate, self.seed = width, epochs, learning_rate, seed
        self._search: TemperatureSearch | None = TemperatureSearch()
        self._epoch = 0
        self._optimizer: torch.optim.Optimizer | None = None
        self._plain: nn.Module | None = None
        self._sums = {"plain": 0.0, "local": 0.0}
        super().__init__(num_classes, region)

    def settings(self) -> dict[str, Any]:
        names = ("image_channels", "spatial_dims", "width", "epochs", "learning_rate", "seed")
        return {**super().settings(), **{name: getattr(self, name) for name in names}}

    def make_head(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return LocalTemperatureHead(self.num_classes, self.image_channels or 1, self.spatial_dims or 3, self.width)

    def apply(self, logits: Tensor, image: Tensor | None = None) -> Tensor:
        if image is None:
            raise ValueError("the local temperature reads the image: apply(logits, image)")
        return super().apply(logits, image.as_subclass(Tensor))

    def observe(self, case: LogitCase) -> None:
        if case.image is None:
            raise ValueError(f"case {case.name}: the local temperature needs the image beside the logits")
        if self.image_channels is None or self.spatial_dims is None:
            self.image_channels, self.spatial_dims = len(case.image), case.logits.ndim - 1
            self.head = self.make_head()
        if self._search is not None:
            for logits, label, _ in case.slabs(self.region):
                self._search.add(logits, label)
            return
        mask = case.mask(self.region)
        box = bounding_box(mask, _MARGIN)
        if box is None:
            return
        inside = (slice(None), *box)
        logits, image = case.logits[inside][None].float(), case.image[inside][None].float()
        label, mask = case.label[box][None], mask[box]
        if self._epoch < self.epochs:
            self._descend(logits, image, label, mask)
            return
        assert self._plain is not None
        for name, head in (("plain", self._plain), ("local", self.head)):
            with torch.no_grad():
                self._sums[name] += float(self._nll(head, logits, image, label, mask).double().sum())

    def end_pass(self) -> bool:
        if self._search is not None:
            if not self._search.end_pass():
                return False
            note_search(self, self._search)
            log_t = torch.tensor(math.log(self._search.temperature))
            self.head.load_state_dict({**self.head.state_dict(), "log_temperature": log_t})
            self._search = None
            if self.record.status != "converged":
                return True
            self._plain = copy.deepcopy(self.head)
            self._optimizer = torch.optim.Adam(self.head.parameters(), lr=self.learning_rate)
            return False
        self._epoch += 1
        if self._epoch <= self.epochs:
            assert self._optimizer is not None
            for group in self._optimizer.param_groups:
                group["lr"] = self.learning_rate * 0.5 * (1 + math.cos(math.pi * self._epoch / self.epochs))
            return False
        assert self._plain is not None
        if not self._sums["local"] < self._sums["plain"]:
            self.head = self._plain
            self.warn("undetermined", "a temperature of each voxel is no better than one for all, which was kept")
        return True

    def _descend(self, logits: Tensor, image: Tensor, label: Tensor, mask: Tensor) -> None:
        assert self._optimizer is not None
        self.head.to(logits.device)
        with torch.enable_grad():
            loss = self._nll(self.head, logits, image, label, mask).mean()
            self._optimizer.zero_grad()
            loss.backward()
        self._optimizer.step()

    @staticmethod
    def _nll(head: nn.Module, logits: Tensor, image: Tensor, label: Tensor, mask: Tensor) -> Tensor:
        calibrated = head.to(logits.device)(logits, image)
        return nn.functional.cross_entropy(calibrated, label, reduction="none")[0][mask]
