"""Classical machine learning, domain ai.onnx.ml."""

from __future__ import annotations

from graphopt.ops.spec import family

__all__ = ["SPECS"]

DOMAIN = "ai.onnx.ml"

SPECS = (
    *family(
        {
            "ArrayFeatureExtractor": "columns of X by index",
            "Binarizer": "whether X is above a threshold",
            "CategoryMapper": "strings to integers, or back",
            "FeatureVectorizer": "the inputs one after another as one feature vector",
            "Imputer": "missing values replaced",
            "LabelEncoder": "keys replaced by values",
            "LinearClassifier": "scores of a linear model, and the best class",
            "LinearRegressor": "scores of a linear model",
            "Normalizer": "rows divided by their largest element, sum or length",
            "OneHotEncoder": "categories as rows of zeros and a one",
            "SVMClassifier": "scores of a support vector machine, and the best class",
            "SVMRegressor": "scores of a support vector machine",
            "Scaler": "(X − offset) · scale per feature",
            "TreeEnsemble": "sums over the leaves that X reaches",
            "TreeEnsembleClassifier": "scores of a forest, and the best class",
            "TreeEnsembleRegressor": "scores of a forest",
        },
        domain=DOMAIN,
    ),
    *family(
        {
            "CastMap": "a tensor from a map",
            "DictVectorizer": "a vector from a map, by a vocabulary",
            "ZipMap": "maps from class to score",
        },
        domain=DOMAIN,
        foldable=False,  # a map cannot be an initializer
    ),
)
