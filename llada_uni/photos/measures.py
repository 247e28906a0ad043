"""Numbers about many images together: Fréchet distance, nearest training images, a linear probe. N images, F features."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_AT_ONCE = 500


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of the normal distributions that fit two sets of features [N, F] (arXiv:1706.08500, equation 6)."""
    (mean, cov), (mean2, cov2) = (_moments(features) for features in (one, other))
    values, vectors = np.linalg.eigh(cov)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    both = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(0)).sum()  # the trace of (cov cov2)^(1/2)
    return float(((mean - mean2) ** 2).sum() + np.trace(cov) + np.trace(cov2) - 2 * both)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [F] and covariance [F, F], float64."""
    features = features.astype(np.float64)
    return features.mean(0), np.cov(features, rowvar=False)


def nearest_distance(queries: np.ndarray, known: np.ndarray) -> np.ndarray:
    """float32 [Q]: Euclidean distance of each of [Q, ...] to the nearest of [N, ...], axes after the first as one."""
    base = torch.from_numpy(known.reshape(len(known), -1).astype(np.float32))
    asked = torch.from_numpy(queries.reshape(len(queries), -1).astype(np.float32))
    return torch.cat([torch.cdist(part, base).amin(1) for part in asked.split(_AT_ONCE)]).numpy()


def copying(drawn: np.ndarray, tests: np.ndarray, training: np.ndarray) -> dict[str, float]:
    """How near drawn images come to training images, beside test images, which cannot be copies; features or pixels [N, ...].

    closer: share of drawn images nearer to a training image than all but 1 % of the test images are; no copying gives 0.01.
    """
    mine, others = nearest_distance(drawn, training), nearest_distance(tests, training)
    return {
        "drawn_median": float(np.median(mine)),
        "test_median": float(np.median(others)),
        "closer": float((mine < np.quantile(others, 0.01)).mean()),
    }


def linear_probe(
    features: np.ndarray, labels: np.ndarray, tests: np.ndarray, test_labels: np.ndarray, steps: int = 100
) -> float:
    """Test accuracy of logistic regression on features [N, F], scaled to unit deviation; L-BFGS, weight decay 1e-4."""
    mean, deviation = features.mean(0), features.std(0) + 1e-6
    known, asked = (torch.from_numpy(((one - mean) / deviation).astype(np.float32)) for one in (features, tests))
    targets = torch.from_numpy(labels)
    weight = torch.zeros(int(labels.max()) + 1, known.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(known, weight, bias), targets) + 1e-4 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # torch's own is untyped
    with torch.no_grad():
        return float((F.linear(asked, weight, bias).argmax(1).numpy() == test_labels).mean())
