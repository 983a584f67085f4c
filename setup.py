"""Packaging.  Paddle itself is an extra, so that a platform's own Paddle (AI Studio, a GPU build) is left alone."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+?)"', (here / "paddle_cxr/__init__.py").read_text(encoding="utf-8")).group(1)

dicom = ["pydicom>=3"]
onnx = ["paddle2onnx>=2.0", "onnxruntime>=1.17"]
analysis = ["rensa>=0.5,<1"]
spm = ["sentencepiece>=0.2.2"]
faiss = ["faiss-cpu>=1.8"]
# PaddleNLP's own requirements let in newer releases of these, with which it cannot be imported.
nlp = ["paddlenlp==3.0.0b4", "tokenizers>=0.21", "numpy>=1.26,<2", "huggingface_hub>=0.22,<0.26",
       "aistudio-sdk>=0.1.3,<0.3", "pyarrow<26"]
# ppdiffusers imports PaddleNLP.
diffusion = ["ppdiffusers==0.29.0", *nlp]
ray = ["ray[data,client]>=2.52,<3"]
seg = ["paddleseg==2.8.0", "numpy>=1.26,<2"]
# Gradio 5.14, the newest that goes with PaddleNLP's huggingface_hub, cannot read the schemas of pydantic 2.11.
app = ["gradio>=5,<7", "pydantic>=2.5,<2.11"]
notebooks = ["nbformat>=5.7", "nbclient>=0.8", "ipykernel>=6.20"]
docs = ["sphinx>=7.4", "myst-parser>=3", "furo>=2024.8.6", "sphinxcontrib-mermaid>=1"]
setup(
    name="paddle_cxr",
    version=version,
    description="胸部 X 光 AI 的飞桨（PaddlePaddle）教学与研究工具箱",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["paddle_cxr", "paddle_cxr.*"]),
    package_data={"paddle_cxr": ["plots/fonts/*", "synthesis/vocabulary/*.yaml", "synthesis/writers/*.yaml"]},
    install_requires=[
        "numpy>=1.26,<3",
        "pillow>=10",
        "pyyaml>=6",
        "pydantic>=2.5,<3",
        "safetensors>=0.4",
        "matplotlib>=3.7",
        "visualdl>=2.5.3,<3",
        "tqdm>=4.60",
        "requests>=2.28",
        "ahocorasick_rs>=0.22",
        "httpx>=0.25",
        "tenacity>=8.2",
    ],
    extras_require={
        "cpu": ["paddlepaddle>=3.0,<3.4"],
        # PyPI's newest is 2.6.2; the README gives Paddle's own index for 3.x, which this line then finds installed.
        "gpu": ["paddlepaddle-gpu>=2.6.2,<3.4"],
        "dicom": dicom,
        "onnx": onnx,
        "analysis": analysis,
        "faiss": faiss,
        "nlp": [*nlp, *spm],
        "diffusion": diffusion,
        "ray": ray,
        "seg": seg,
        "app": app,
        "notebooks": notebooks,
        "docs": docs,
        "test": ["pytest>=7.4", "pytest-xdist>=3.5", "hypothesis>=6.80", "scikit-learn>=1.3", "scipy>=1.11",
                 "ruff>=0.6", "nbformat>=5.7", *dicom, *onnx, *analysis, *spm, *faiss],
    },
    classifiers=["Natural Language :: Chinese (Simplified)", "License :: OSI Approved :: Apache Software License",
                 "Programming Language :: Python :: 3.10", "Programming Language :: Python :: 3.11",
                 "Programming Language :: Python :: 3.12"],
)
