"""A linear-chain conditional random field: scores of neighbouring tags beside those of each token.

Source: Lafferty, McCallum and Pereira 2001; Lample et al. 2016 (arXiv:1603.01360), section 2.2.
"""

import torch
from torch import Tensor, nn


class Crf(nn.Module):
    """First-order chain over L tags; starts and ends have scores of their own.

    B rows, T positions, L tags. lengths: (B,) int64, at least 1; what stands beyond is not read.
    """

    def __init__(self, num_tags: int):
        super().__init__()
        self.start = nn.Parameter(torch.zeros(num_tags))
        self.end = nn.Parameter(torch.zeros(num_tags))
        self.transitions = nn.Parameter(torch.zeros(num_tags, num_tags))

    def forward(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return the negative log-likelihood of each row's tags, (B,).

        emissions: (B, T, L) float; tags: (B, T) int64, any tag beyond a row's length.
        """
        return self.log_partition(emissions, lengths) - self._path_score(emissions, tags, lengths)

    def _path_score(self, emissions: Tensor, tags: Tensor, lengths: Tensor) -> Tensor:
        inside = _inside(emissions, lengths)
        own = emissions.gather(2, tags[:, :, None])[:, :, 0] * inside
        steps = self.transitions[tags[:, :-1], tags[:, 1:]] * inside[:, 1:]
        last = tags.gather(1, lengths[:, None] - 1)[:, 0]
        return own.sum(1) + steps.sum(1) + self.start[tags[:, 0]] + self.end[last]

    def log_partition(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return the logarithm of the summed exponentials of all paths, (B,)."""
        alpha = self.start + emissions[:, 0]
        for position in range(1, emissions.shape[1]):
            paths = alpha[:, :, None] + self.transitions
            step = torch.logsumexp(paths, 1) + emissions[:, position]
            alpha = torch.where((position < lengths)[:, None], step, alpha)
        return torch.logsumexp(alpha + self.end, 1)

    def decode(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return the best path of each row by Viterbi's algorithm, (B, T) int64, 0 beyond it."""
        alpha = self.start + emissions[:, 0]
        sources = []
        for position in range(1, emissions.shape[1]):
            best, source = (alpha[:, :, None] + self.transitions).max(1)
            going = (position < lengths)[:, None]
            alpha = torch.where(going, best + emissions[:, position], alpha)
            # A row that has ended stays on its last tag.
            stay = torch.arange(alpha.shape[1], device=alpha.device).expand_as(source)
            sources.append(torch.where(going, source, stay))
        tag = (alpha + self.end).argmax(1)
        path = [tag]
        for source in reversed(sources):
            tag = source.gather(1, tag[:, None])[:, 0]
            path.append(tag)
        return torch.stack(path[::-1], 1) * _inside(emissions, lengths)

    def marginals(self, emissions: Tensor, lengths: Tensor) -> Tensor:
        """Return the probability of each tag at each position, (B, T, L); 0 beyond a row.

        They are the gradient of the log-partition function.
        """
        with torch.enable_grad():
            leaf = emissions.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_partition(leaf, lengths).sum(), leaf)
        return gradient


def _inside(emissions: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(emissions.shape[1], device=emissions.device) < lengths[:, None]
