return require "spec.vectors.limiters"
