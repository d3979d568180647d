"""What training changes: networks, their average, optimizers, counters, a place in the data; and how it is resumed.

`gtool train MODEL --resume RUN` (or `auto`, the newest) ends with the bits of a run that never stopped:

1. Every snapshot writes `state-<kimg>/` beside the weights (`gtool.train.run`): all networks and optimizers as
   safetensors, and counters as JSON; `tensors` and `info` below are what goes into it.
2. A signal (Ctrl-C, SIGTERM) ends the step that runs, then a snapshot is written; a crash loses what came after the
   newest snapshot.
3. `--resume` finds the run folder and takes its recipe.toml in place of any other (`gtool.train.resolve`); data,
   networks, seed and batch size cannot change, length and cadence may be set anew.
4. Of several processes each reads the state itself; before that all compare what they are about to do
   (`gtool.train.run`), so that none goes on alone.
5. On a CPU the run keeps the number of threads that it began with, unless OMP_NUM_THREADS says another.
6. The data are read as before, networks are built as before, then `restore` puts the newest state back, and the log
   drops the lines after it.

No state of a random generator is saved, because every random number is a function of the seed and the step; nor is the
order of the data, which is a function of the seed and the `position`.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock
from typing import Annotated, Any, ClassVar, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gtool.config.schema import Recipe
from gtool.errors import CheckpointError
from gtool.io.weights import restore
from gtool.models import registry
from gtool.models.trained import Trained
from gtool.nn.precision import cast_blocks
from gtool.reading import reading
from gtool.runtime.device import Compute
from gtool.runtime.random import derive_seed
from gtool.runtime.torch_random import make_generator
from gtool.train import optim

OF_ADAM = {"step", "exp_avg", "exp_avg_sq"}  # what the optimizer keeps of a parameter
_GLOBAL_RANDOM = Lock()  # torch's own random numbers, for one share at a time
Result = TypeVar("Result")
Counter = Annotated[int, Field(ge=0)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]


class Counters(BaseModel):
    """What state.json holds; `best` is the snapshot that scored best, if any: its `nimg` and its score."""

    model_config = ConfigDict(strict=True)

    nimg: Counter
    steps: Counter
    seconds: Annotated[Number, Field(ge=0)]
    progress: Annotated[Number, Field(ge=0)]
    position: Counter
    numbers: dict[str, Number]
    best: dict[str, int | Number] = {}
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None  # of a CPU: another number rounds otherwise


@dataclass(kw_only=True)
class TrainingState:
    """Networks in training are attributes of a subclass, wrapped when there are several processes.

    The optimizer of `x` is `x_optimizer`, or `optimizer` where there is one network only.
    """

    in_training: ClassVar[tuple[str, ...]] = ()  # the attributes that are networks in training
    in_shares: ClassVar[bool] = False  # a step works on the shares of a batch side by side, by `backward`
    averaged_buffers: ClassVar[optim.Buffers] = "keep"

    recipe: Recipe
    compute: Compute
    ema: Any  # what is saved as weights
    batches: Any = None  # None for families whose batches are a function of the step
    nimg: int = 0  # images shown so far
    steps: int = 0
    seconds: float = 0.0  # spent training, over all sessions
    progress: float = 0.0  # share of the run that is done, 0 to 1: schedules read it

    @classmethod
    def begin(
        cls,
        recipe: Recipe,
        compute: Compute,
        networks: tuple[nn.Module, ...],
        groups: Callable[[nn.Module], Any] = nn.Module.parameters,
        **others: Any,
    ) -> Self:
        """Make the state at step 0: an optimizer for each network, all of them wrapped for several processes.

        networks: those in training, on the device, as `in_training` names them.
        groups: what of a network its optimizer gets.
        """
        compute.meet()  # before networks are wrapped, which exchanges them: to read images may have taken long
        rates, shares = optim.learning_rates(recipe), optim.lazy_shares(recipe)
        if recipe.train.compile:  # its compiler is for one thread
            compute = replace(compute, threads=1)
        for name, network, rate, share in zip(cls.in_training, networks, rates, shares, strict=False):
            optimizer = optim.make_optimizer(recipe.optim, groups(network), rate, share)
            if compute.bf16 and compute.device.type == "cuda" and not recipe.train.compile:
                cast_blocks(network)
            if recipe.train.recompute:
                recompute_blocks(network)
            if recipe.train.compile:
                network.compile()
            others[name] = compute.accelerator.prepare(network)
            others[cls._optimizer_of(name)] = compute.accelerator.prepare(optimizer)
        state = cls(recipe=recipe, compute=compute, **others)
        if not optim.averages(recipe):
            share_parameters(state.averaged, networks[0])
        return state

    @classmethod
    def _optimizer_of(cls, name: str) -> str:
        return "optimizer" if len(cls.in_training) == 1 else f"{name}_optimizer"

    def bare(self, name: str) -> Any:
        """Return a network in training without what wraps it."""
        return self.compute.accelerator.unwrap_model(getattr(self, name))

    @property
    def networks(self) -> dict[str, nn.Module]:
        """All networks, not wrapped, by the names they are saved under."""
        return {name: self.bare(name) for name in self.in_training} | {"ema": self.ema}

    @property
    def optimizers(self) -> dict[str, tuple[nn.Module, Any]]:
        """The optimizers with their networks, by the names they are saved under."""
        keys = {name: self._optimizer_of(name) for name in self.in_training}
        return {key: (self.bare(name), getattr(self, key)) for name, key in keys.items()}

    @property
    def averaged(self) -> nn.Module:
        """What follows the first network in training."""
        return self.ema

    @property
    def numbers(self) -> dict[str, float]:
        """What else is saved, the same in every process."""
        return {}

    @numbers.setter
    def numbers(self, numbers: dict[str, float]) -> None:
        pass

    # The parts of a step that all families share.

    def set_rates(self) -> None:
        """Set the learning rates of this step."""
        factor = optim.rate_factor(self.recipe, self.steps, self.progress)
        rates = optim.learning_rates(self.recipe)
        for (_, optimizer), rate in zip(self.optimizers.values(), rates, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    def micro_batches(self, batch: int, group: int = 1) -> list[slice]:
        """Return the slices of the global batch that this process works through, several where threads share the work.

        group: images that a network compares with each other; no slice cuts through one.
        """
        compute = self.compute
        share = batch // compute.world_size
        size = min(self.recipe.train.micro_batch or share, share)
        size = min(size, share // compute.shares(share, group))
        first = compute.rank * share
        return [slice(start, start + size) for start in range(first, first + share, size)]

    def backward(
        self,
        name: str,
        parts: Sequence[slice],
        loss_of: Callable[[slice], tuple[Tensor, Result]],
        *,
        is_last: bool = True,
    ) -> list[Result]:
        """Add the gradients of the mean of a loss over the shares of a batch; shares run side by side on a CPU.

        loss_of: from a share to its loss, and to what else is wanted of it, which is returned.
        is_last: whether processes exchange their gradients at the last share.
        """
        compute, network = self.compute, getattr(self, name)
        if compute.threads == 1:
            results = []
            for position, part in enumerate(parts, 1):
                exchanges = is_last and position == len(parts)
                with nullcontext() if exchanges else compute.accelerator.no_sync(network):
                    with self.dropout_of(name, part):
                        loss, result = loss_of(part)
                    compute.accelerator.backward(loss / len(parts))
                results.append(result)
            return results
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

        def differentiate(part: slice) -> tuple[tuple[Tensor | None, ...], Result]:
            with self.dropout_of(name, part):
                loss, result = loss_of(part)
            return torch.autograd.grad(loss / len(parts), parameters, allow_unused=True), result

        done = compute.map(differentiate, parts)
        for gradients, _ in done:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is None:
                    continue
                # A copy, as one may share memory with another and have another layout than its parameter, which the
                # fused optimizer would misread.
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter).copy_(gradient)
                else:
                    parameter.grad += gradient
        return [result for _, result in done]

    @cached_property
    def _drops(self) -> bool:
        """Whether any network has dropout; asked in every share of every step."""
        return any(map(_has_dropout, self.networks.values()))

    @contextmanager
    def dropout_of(self, purpose: str, part: slice) -> Iterator[None]:
        """Make dropout a function of seed, step and share: a run with it can be resumed, but not cut up otherwise."""
        if not self._drops:
            yield
            return
        devices = [self.compute.device] if self.compute.device.type == "cuda" else []
        with _GLOBAL_RANDOM, torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(self.recipe.train.seed, "dropout", purpose, self.steps, part.start))
            yield

    def clip_and_step(self, name: str) -> Tensor:
        """Limit the norm of a network's gradients, step its optimizer, and return the norm before."""
        limit = self.recipe.optim.clip_grad_norm or math.inf
        norm = self.compute.accelerator.clip_grad_norm_(getattr(self, name).parameters(), limit)
        getattr(self, self._optimizer_of(name)).step()
        return norm.detach()

    def update_average(self) -> None:
        """Move the average towards the first network in training."""
        beta = optim.ema_beta(self.recipe, self.nimg)
        optim.ema_update(self.averaged, self.bare(self.in_training[0]), beta, self.averaged_buffers)

    # What a resume needs.

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return networks and optimizers as named groups of tensors."""
        groups = {name: dict(network.state_dict()) for name, network in self.networks.items()}
        for name, (network, optimizer) in self.optimizers.items():
            groups[name] = {
                f"{parameter}/{key}": value
                for parameter, tensor in network.named_parameters()
                for key, value in optimizer.state[tensor].items()
            }
        return groups

    def info(self) -> dict[str, Any]:
        """Return counters and other numbers; the position is that in the data, 0 without one."""
        keys = ("nimg", "steps", "seconds", "progress", "numbers")
        position = 0 if self.batches is None else int(self.batches.position)
        return {key: getattr(self, key) for key in keys} | {"position": position, "threads": self._threads()}

    def _threads(self) -> int | None:
        """Return the number of threads that bits depend on, if any do."""
        compute = self.compute
        if compute.device.type != "cpu" or compute.world_size > 1:
            return None
        return compute.threads if self.in_shares else torch.get_num_threads()

    def _keep_threads(self, number: int) -> None:
        """Go on with so many threads, unless the user has named another number."""
        if "OMP_NUM_THREADS" in os.environ or self._threads() is None:
            return
        if self.in_shares:  # of which no more work at a time than there are cores
            self.compute = replace(self.compute, threads=number)
        elif number <= (os.cpu_count() or 1):
            torch.set_num_threads(number)

    def restore(
        self, tensors: dict[str, dict[str, Tensor]], info: dict[str, Any], where: str
    ) -> dict[str, float]:
        """Put a saved state back; return what is known of the best snapshot, nothing where there is none.

        Raises:
            CheckpointError: a group, tensor or counter is missing or of another shape.
        """
        expected = self.networks.keys() | self.optimizers.keys()
        if tensors.keys() != expected:
            raise CheckpointError(f"{where}: holds {sorted(tensors)}, expected {sorted(expected)}")
        # What learns comes last: the average may share its memory.
        for name, network in reversed(self.networks.items()):
            restore(network, tensors[name], f"{where}/{name}")
        for name, (network, optimizer) in self.optimizers.items():
            _restore_optimizer(network, optimizer, tensors[name], f"{where}/{name}")
        with reading(f"{where}/state.json", "state", CheckpointError):
            counters = Counters.model_validate(info)
            if counters.best and type(counters.best.get("nimg")) is not int:
                raise ValueError("`best` says of no number of images")
        if counters.threads:
            self._keep_threads(counters.threads)
        self.nimg, self.steps = counters.nimg, counters.steps
        self.seconds, self.progress = counters.seconds, counters.progress
        if self.batches is not None:
            self.batches.position = counters.position
        self.numbers = counters.numbers
        return counters.best

    def start_from(self, weights: Trained) -> None:
        """Begin with trained weights: here all networks are of their kind.

        Raises:
            CheckpointError: they do not fit.
        """
        for network in self.networks.values():
            restore(network, weights.tensors, weights.path)


def take(local: Tensor, part: slice, parts: list[slice]) -> Tensor:
    """Take a slice of the global batch out of this process's share."""
    return local[part.start - parts[0].start : part.stop - parts[0].start]


def take_or_none(local: Tensor | None, part: slice, parts: list[slice]) -> Tensor | None:
    """Take a slice as `take` does, of what there may not be."""
    return None if local is None else take(local, part, parts)


def mean_of(stats: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the means of statistics over the shares of a batch, without their graph."""
    return {name: torch.stack([one[name].detach() for one in stats]).mean() for name in stats[0]}


def _has_dropout(network: nn.Module) -> bool:
    """Whether a layer, or what has it as a number, drops anything in training."""
    rates = (
        getattr(module, "p" if isinstance(module, nn.Dropout) else "dropout", 0.0)
        for module in network.modules()
    )
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _restore_optimizer(network: nn.Module, optimizer: Any, saved: dict[str, Tensor], where: str) -> None:
    parameters = dict(network.named_parameters())
    found: dict[nn.Parameter, dict[str, Tensor]] = {}
    for entry, value in saved.items():
        name, _, key = entry.rpartition("/")
        own = parameters.get(name)
        if own is None or value.dtype != own.dtype or value.shape != (() if key == "step" else own.shape):
            raise CheckpointError(f"{where}: `{entry}` does not fit this model")
        found.setdefault(own, {})[key] = value.to(own.device).clone()
    if any(values.keys() != OF_ADAM for values in found.values()):
        raise CheckpointError(f"{where}: does not hold {', '.join(sorted(OF_ADAM))} of each parameter")
    optimizer.state.update(found)


def share_parameters(average: nn.Module, network: nn.Module) -> None:
    """Let an average that is always what learns take no memory of its own."""
    for name, learned in network.named_parameters():
        parent, _, own = name.rpartition(".")
        setattr(average.get_submodule(parent), own, nn.Parameter(learned.detach(), requires_grad=False))


def recompute_blocks(network: nn.Module) -> None:
    """Keep of every block of a network its inputs alone, and compute it again where its gradient is wanted."""
    for module in network.modules():
        if getattr(module, "is_block", False):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]


def build_networks(recipe: Recipe, config: Any) -> Any:
    """Build the networks of a recipe, a function of its seed alone; torch's global random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(make_generator(recipe.train.seed, "init").initial_seed())
        return registry.network_module(recipe.model_name).build(config)
