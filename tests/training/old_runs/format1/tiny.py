"""A narrow network on the digits, for a few steps."""

from imgclf import Average, Checkpoint, Data, Log, Model, Recipe, Steps
from imgclf.augmentation import Translate
from imgclf.data import Digits
from imgclf.schedules import Constant

recipe = Recipe(
    data=Data(Digits(), {"test": Digits("test")}, batch_size=128),
    augment=(Translate(1),),
    model=Model("cnn", dtype="float32", options={"width": 4}),
    schedule=Constant(0.02),
    average=Average(0.9),
    length=Steps(12),
    evaluate_every=Steps(6),
    checkpoint=Checkpoint(every=Steps(3), keep=1),
    log=Log(every=Steps(2), tensorboard=False),
)
