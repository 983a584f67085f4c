"""Networks.  Each file reads from top to bottom in one sitting; importing this package registers them all."""

from paddle_cxr.models.ensemble import Ensemble
from paddle_cxr.models.resnet import ResNet, ResNet18, ResNet34, ResNet50, ResNet101, ResNet152

__all__ = ["Ensemble", "ResNet", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"]
