"""ResNet-20 on CIFAR-10: He et al. 2015 (https://arxiv.org/abs/1512.03385), section 4.2.

The data are CIFAR-10's binary files, in data/cifar-10-batches-bin. The full length is not measured
yet; 4 epochs give 80.2 % (n=1, 2 CPU cores, 25 min; README).
"""

from imgclf import Data, Epochs, Model, Recipe
from imgclf.augmentation import Crop, Flip
from imgclf.data import Cifar
from imgclf.losses import CrossEntropy
from imgclf.optimizers import SGD
from imgclf.schedules import Cosine
from imgclf.tasks import Classify

recipe = Recipe(
    data=Data(
        train=Cifar("train"),
        evaluate={"test": Cifar("test")},
        batch_size=128,
        evaluate_batch_size=500,
    ),
    augment=(Crop(padding=4), Flip()),
    model=Model("cifar_resnet20", dtype="float32"),
    task=Classify(CrossEntropy()),
    optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=5e-4),
    schedule=Cosine(peak=0.1, warmup=Epochs(1)),
    length=Epochs(200),
)
