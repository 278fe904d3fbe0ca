plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "kerascompress.app"
    compileSdk = libs.versions.compileSdk.get().toInt()

    defaultConfig {
        applicationId = "kerascompress.app"
        minSdk = libs.versions.minSdk.get().toInt()
        targetSdk = libs.versions.compileSdk.get().toInt()
        versionCode = 1
        versionName = "1.0"
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    androidResources {
        noCompress += "tflite" // so that it can be read where it is, without a copy
    }
}

dependencies {
    implementation(project(":library"))
    implementation(libs.litert)
    implementation(libs.mediapipe.text)
}
