"""ResNet-50 on ImageNet-1k in 90 epochs: Goyal et al. 2017 (https://arxiv.org/abs/1706.02677).

The data are class folders in data/imagenet/train and data/imagenet/val. Not measured yet here; the
paper reports 76.3 % top-1.
"""

from imgclf import Data, Epochs, Model, Preprocess, Recipe
from imgclf.augmentation import Flip
from imgclf.data import Folder, RandomResizedCrop
from imgclf.losses import CrossEntropy
from imgclf.optimizers import SGD
from imgclf.schedules import Cosine
from imgclf.tasks import Classify

TO_GET = "log in at https://image-net.org/download, and sort the photographs into class folders"

recipe = Recipe(
    data=Data(
        train=Folder("imagenet/train", to_get=TO_GET),
        evaluate={"val": Folder("imagenet/val", to_get=TO_GET)},
        batch_size=1024,
        geometry=RandomResizedCrop(),
        workers=8,
        threads=4,
    ),
    augment=(Flip(),),
    model=Model("resnet50", preprocess=Preprocess(crop=0.875)),
    task=Classify(CrossEntropy(label_smoothing=0.1)),
    optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=5e-5),
    schedule=Cosine(peak=0.4, warmup=Epochs(5)),
    length=Epochs(90),
)
