"""ResNet-18 on Imagenette, ten classes of ImageNet, from class folders.

The data are the folders train/ and val/ of imagenette2-160, in data/imagenette2-160.
"""

from imgclf import Data, Epochs, Model, Preprocess, Recipe
from imgclf.augmentation import Flip
from imgclf.data import Folder, RandomResizedCrop
from imgclf.losses import CrossEntropy
from imgclf.optimizers import SGD
from imgclf.schedules import Cosine
from imgclf.tasks import Classify

TO_GET = (
    "mkdir -p data && "
    "curl -L https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-160.tgz | tar -xz -C data"
)

recipe = Recipe(
    data=Data(
        train=Folder("imagenette2-160/train", to_get=TO_GET),
        evaluate={"val": Folder("imagenette2-160/val", to_get=TO_GET)},
        batch_size=64,
        geometry=RandomResizedCrop(scale=(0.35, 1.0)),
    ),
    augment=(Flip(),),
    model=Model("resnet18", preprocess=Preprocess(size=128, crop=0.875)),
    task=Classify(CrossEntropy(label_smoothing=0.1)),
    optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=1e-4),
    schedule=Cosine(peak=0.05, warmup=Epochs(2)),
    length=Epochs(80),
)
